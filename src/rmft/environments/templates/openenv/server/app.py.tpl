"""Serves __TITLE__ over HTTP and WebSocket."""

import uvicorn
from openenv.core.env_server.http_server import create_app

try:
    from ..models import BanditAction, BanditObservation
    from .environment import BanditEnvironment
except ImportError:
    from models import BanditAction, BanditObservation
    from server.environment import BanditEnvironment

app = create_app(
    BanditEnvironment, BanditAction, BanditObservation, env_name="__PACKAGE__", max_concurrent_envs=64
)


def main() -> None:
    uvicorn.run(app, host="0.0.0.0", port=8000)


if __name__ == "__main__":
    main()
