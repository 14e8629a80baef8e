from .client import BanditEnv
from .models import BanditAction, BanditObservation

__all__ = ["BanditAction", "BanditEnv", "BanditObservation"]
