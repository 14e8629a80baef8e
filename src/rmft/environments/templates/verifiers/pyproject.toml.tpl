[project]
name = "__NAME__"
version = "0.1.0"
description = "__TITLE__: online decision problems told in words."
requires-python = ">=3.11"
dependencies = ["rmft>=__VERSION__", "verifiers>=0.4"]

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.hatch.build.targets.wheel]
packages = ["__PACKAGE__"]
