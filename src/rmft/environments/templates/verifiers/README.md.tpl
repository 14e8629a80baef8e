# __NAME__

__TITLE__: online decision problems told in words, as a [verifiers](https://pypi.org/project/verifiers/) environment, written by
`rmft export-env`. The model is told a situation with several options, chooses one each round, and hears what came of it.

```
pip install -e .                # verifiers, and the core of rmft: no torch
python -m pytest                # two resets with one seed tell the same
vf-eval __NAME__ -n 3
```

- `__PACKAGE__/taskset.py`: tasks are problems, by part (`train`, `validation`, `held_out`) and number. The reward is minus the
  regret of the whole problem: what was lost to the best option, 0 at best. An answer that is no legal letter is asked
  again twice; then every round that is left counts as the worst option's.
- `__PACKAGE__/suite.yaml`: the problems. Nothing of what is hidden is told to the model.
