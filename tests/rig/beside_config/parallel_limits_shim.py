"""For LiteLLM versions that load callbacks only from a file beside the config."""

from litellm_parallel_limits import proxy_handler_instance  # noqa: F401
