[project]
name = "openenv-__NAME__"
version = "0.1.0"
description = "__TITLE__: online decision problems told in words."
requires-python = ">=3.11"
dependencies = ["rmft>=__VERSION__", "openenv>=0.10", "uvicorn"]

[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[tool.setuptools]
packages = ["__PACKAGE__", "__PACKAGE__.server"]
package-dir = { "__PACKAGE__" = ".", "__PACKAGE__.server" = "server" }

[tool.setuptools.package-data]
"__PACKAGE__.server" = ["suite.yaml"]

[project.scripts]
server = "__PACKAGE__.server.app:main"
