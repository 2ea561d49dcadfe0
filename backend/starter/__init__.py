"""The embedded default workspace: rendered scenes, benchmarks of them, and a nano model zoo."""
