from __PACKAGE__.taskset import BanditConfig, BanditData, BanditEnv, BanditEnvConfig, BanditTask, BanditTaskset

__all__ = ["BanditConfig", "BanditData", "BanditEnv", "BanditEnvConfig", "BanditTask", "BanditTaskset"]
