# __NAME__

__TITLE__: online decision problems told in words, as an [OpenEnv](https://pypi.org/project/openenv/) environment, written by
`rmft export-env`. An agent is told a situation with several options, chooses one each round, and hears what came of it.

```
pip install -e .                # openenv, and the core of rmft: no torch
python -m pytest                # two resets with one seed tell the same
python -m __PACKAGE__.server.app      # serves at port 8000
```

- `reset(seed=7, split="held_out")` begins problem 7 of a part (`train`, `validation`, `held_out`); `seed` and `index` are the same.
- An action's `answer` is a letter. One that is not legal is asked again twice; then every round that is left counts as the worst
  option's. An observation's `prompt` is what an agent may read; `reward` is the round's. When the problem is over, `regret` is
  what was lost to the best option.
- `server/suite.yaml`: the problems. Nothing of what is hidden is told before the end.
