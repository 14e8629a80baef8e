"""The one place where the settings of a run become objects: suites, and what plays and trains its policy."""
