"""The settings of every kind of tracker, told apart by `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rmft.reading import Config, by_kind

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class NoTracking(Config):
    """What a run keeps in its directory is all."""

    kind: Literal["none"] = "none"


class TrackioTracking(Config):
    """Trackio: a dashboard on this machine (`trackio show`), or in a Space of the Hugging Face hub."""

    kind: Literal["trackio"] = "trackio"
    project: Name = "rmft"
    space_id: str | None = None
    """A Space, USER/NAME, to log to; None: this machine."""


class WandbTracking(Config):
    """Weights & Biases."""

    kind: Literal["wandb"] = "wandb"
    project: Name = "rmft"
    entity: Name | None = None
    mode: Literal["online", "offline"] = "online"
    """offline: into the run's folder `wandb`, for `wandb sync`."""


class TensorBoardTracking(Config):
    """Event files for `tensorboard --logdir`."""

    kind: Literal["tensorboard"] = "tensorboard"
    folder: str | None = None
    """Where runs are logged, each to a folder of its name; None: the run's own folder `tensorboard`."""


class MLflowTracking(Config):
    """MLflow."""

    kind: Literal["mlflow"] = "mlflow"
    uri: str | None = None
    """A tracking server, or a store such as sqlite:///mlflow.db; None: what MLFLOW_TRACKING_URI says."""
    experiment: Name = "rmft"


KINDS = (NoTracking, TrackioTracking, WandbTracking, TensorBoardTracking, MLflowTracking)

TrackingConfig = Annotated[
    NoTracking | TrackioTracking | WandbTracking | TensorBoardTracking | MLflowTracking,
    by_kind("tracking", "none", *KINDS),
]
