"""The trainer of hosted models: a training file, a fine-tuning job at the provider, the model it makes."""

from __future__ import annotations

import codecs
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rmft.errors import AnswerError, EndpointError, TrainingJobError
from rmft.files import write_atomically
from rmft.messages import count_tokens
from rmft.policies.config import HostedConfig
from rmft.providers.hosted_model import HostedModel, read_hosted, write_hosted
from rmft.providers.provider import FineTuneProvider, JobRequest, JobState
from rmft.training.config import HostedTraining
from rmft.training.conversations import check, conversations, to_jsonl
from rmft.training.job import JobFile, JobRecord
from rmft.types import PolicyRef, TrainingBatch, TrainingStep

FOLDER = "fine-tuning"
CREATES = 3  # requests for a job of which none came, each with its retries
FINDS = 3  # looks for a job whose id was lost, since lists can lag behind
FAILED_POLLS = 10  # in a row, each with its retries, until the run stops, to be resumed
SERVING_SECONDS = 3600.0  # how long a run waits for its users to put a model into service


class HostedTrainer:
    """Implements `Trainer`. What lies at the provider, and how far it is, is in the run's `fine-tuning/`.

    000001.jsonl  what was uploaded for iteration 1; 000001.json  its file, job and model (`JobRecord`).
    """

    def __init__(
        self,
        training: HostedTraining,
        policy: HostedConfig,
        provider: FineTuneProvider,
        folder: Path,
        *,
        charge: Callable[[str, int], None] = lambda key, tokens: None,  # noqa: ARG005
        say: Callable[[str], None] = lambda text: None,  # noqa: ARG005
        first_pause: float = 1.0,
    ) -> None:
        """folder: the run's. charge: called before a job is created, with a key that stays the same for that
        job, and about how many tokens it trains on, all epochs together; what it raises keeps the job from
        being created. say: hears what is going on. first_pause (s): between the first looks at a job; it
        doubles up to policy.poll_seconds.
        """
        self.training, self.policy, self.provider = training, policy, provider
        self.folder = folder / FOLDER
        self.charge, self.say = charge, say
        self.first_pause = min(first_pause, policy.poll_seconds)

    def train(
        self,
        policy: PolicyRef,
        batches: list[TrainingBatch],
        target: Path,
        step: TrainingStep,
    ) -> tuple[PolicyRef, dict[str, float]]:
        """See `Trainer`. What was begun for the same iteration is gone on with.

        Raises ConfigError for what the provider would refuse, TrainingJobError for a job that failed, was
        cancelled or whose model was not put into service, and as `FineTuneProvider` does.
        """
        before = read_hosted(policy.path)
        training = conversations(batches)
        if not training:
            write_hosted(target, before)
            return PolicyRef("hosted", target), {"examples": 0.0, "tokens": 0.0}
        content = to_jsonl(training, weights=self.provider.facts.weights)
        check(training, len(content), self.provider.facts, before.base)
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"{step.iteration:06d}.jsonl"
        mark = codecs.BOM_UTF8 if self.provider.facts.byte_order_mark else b""
        write_atomically(path, mark + content)
        record = JobFile(path.with_suffix(".json"), self._key(content, before, step.seed))
        if record.useless is not None:
            self._cancel(record.useless)
        tokens = sum(count_tokens(each) for each in training) * self.training.epochs
        job = self._job(record, before, path, step.seed, tokens)
        model = record.record.model or self._made(record, job)
        called = self._served(model)
        write_hosted(target, before.model_copy(update={"model": model, "called": called, "job": job}))
        trained = record.record.tokens
        figures = {"examples": float(len(training)), "tokens": float(tokens if trained is None else trained)}
        return PolicyRef("hosted", target), figures | self._known(job, figures["tokens"], before.base)

    def _key(self, content: bytes, before: HostedModel, seed: int) -> str:
        names = [before.provider, before.base, before.model]
        what = [*names, self.training.epochs, self.policy.learning_rate_multiplier, seed]
        return hashlib.sha256(content + json.dumps(what).encode()).hexdigest()

    def _cancel(self, useless: JobRecord) -> None:
        """Cancel a job of this run that trains on other data, as settings have changed."""
        job = useless.job
        if job is None and useless.file is not None:
            job = self._find(useless.file)
        if job is not None:
            self.say(f"cancelling {job}, which trains on other data")
            self.provider.cancel(job)

    def _job(self, record: JobFile, before: HostedModel, path: Path, seed: int, tokens: int) -> str:
        """The id of the iteration's job: the one there is, or a new one."""
        if record.record.job is not None:
            return record.record.job
        file = record.record.file
        if file is None:
            self.say(f"uploading {path.name}")
            file = self.provider.upload(path)
            record.update({"file": file})
        job = self._find(file) if record.record.asked else None
        if job is None:
            self.charge(f"job {file}", tokens)
            record.update({"asked": True})
            job = self._create(
                record,
                JobRequest(
                    file=file,
                    base=before.base,
                    model=before.model,
                    job=before.job,
                    epochs=self.training.epochs,
                    seed=seed,
                    suffix=f"rmft-{re.sub('[^A-Za-z0-9]', '-', path.stem)}"[:18],
                    learning_rate_multiplier=self.policy.learning_rate_multiplier,
                ),
            )
        record.update({"job": job})
        return job

    def _create(self, record: JobFile, request: JobRequest) -> str:
        """The id of a new job. Where it stays open whether there is one, it is looked for first."""
        for attempt in range(1, CREATES + 1):
            try:
                return self.provider.create(request)
            except EndpointError as error:  # refused, so there is none
                bad = error.status in (400, 404, 422)  # the next job is asked for with a new upload
                record.update({"asked": False, "file": None if bad else request.file})
                raise
            except AnswerError as error:
                if (job := self._find(request.file)) is not None:
                    return job
                if attempt == CREATES:
                    raise
                self.say(f"creating the job again: {error}")
        raise AssertionError("the last attempt returns or raises")

    def _find(self, file: str) -> str | None:
        for look in range(FINDS):
            if (job := self.provider.find_job(file)) is not None:
                return job
            if look < FINDS - 1:
                time.sleep(self.first_pause)
        return None

    def _made(self, record: JobFile, job: str) -> str:
        """The model that the job makes, once it has."""
        state = self._wait(record, job)
        if state.status != "succeeded" or state.model is None:
            record.ended(f"{job} {state.status}: {state.reason:.300}")
            what = "has failed" if state.status == "failed" else "has been cancelled"
            raise TrainingJobError(
                f"The fine-tuning job {job} {what}: {state.reason:.300}. Resuming the run starts a new job."
            )
        record.update({"model": state.model, "tokens": state.trained_tokens})
        return state.model

    def _wait(self, record: JobFile, job: str) -> JobState:
        """The job's final state."""
        failures = 0
        for seconds in self._looks():
            try:
                state = self.provider.poll(job)
                failures = 0
            except AnswerError as error:
                failures += 1
                if failures == FAILED_POLLS:
                    raise
                state = JobState("waiting", reason=str(error))
            except EndpointError as error:
                if error.status != 404:
                    raise
                record.ended(f"{job} is unknown to the provider")
                raise TrainingJobError(
                    f"The provider does not know the fine-tuning job {job} any more ({error}). Resuming the "
                    "run starts a new one."
                ) from None
            if state.status not in ("waiting", "running"):
                return state
            self.say(f"{job}: {state.reason or state.status} ({seconds:.0f} s)")
        raise AssertionError("it looks until the job has ended")

    def _served(self, model: str) -> str:
        """The name that the model is called by, once it can be."""
        for seconds in self._looks():
            if (called := self.provider.serve(model, self.say)) is not None:
                return called
            if seconds > SERVING_SECONDS:
                break
        raise TrainingJobError(
            f"The fine-tuned model {model} is still not in service. {self.provider.facts.serving} "
            "Resume the run once it answers; its training is done and is not repeated."
        )

    def _looks(self) -> Iterator[float]:
        """Seconds since the first look, at every further one; the pauses between them double."""
        begun, pause = time.monotonic(), self.first_pause
        while True:
            yield time.monotonic() - begun
            time.sleep(pause)
            pause = min(2 * pause, self.policy.poll_seconds)

    def _known(self, job: str, tokens: float, base: str) -> dict[str, float]:
        """The job's last loss and its price, where they are known."""
        figures = {}
        usd = self.provider.facts.model(base).training_usd(int(tokens))
        if usd is not None:
            figures["usd"] = usd
        try:
            losses = [each.loss for each in self.provider.checkpoints(job) if each.loss is not None]
        except (AnswerError, EndpointError):  # it is only told, never needed
            losses = []
        return figures | ({"loss": losses[-1]} if losses else {})
