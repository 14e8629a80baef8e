spec_version: 1
name: __PACKAGE__
version: 0.1.0
type: space
runtime: fastapi
app: server.app:app
port: 8000
validation:
  reward:
    range: [__LOW__, __HIGH__]
  capabilities:
    verifier:
      kind: reward_channel
