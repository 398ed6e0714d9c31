"""The orchestrator: launches, supervises, routes and serves. Imports of the stages only their core."""
