"""The model that a path names."""

from __future__ import annotations

import pytest

from litellm_parallel_limits.paths import model_in

NAMED = {
    "/gemini/v1beta/models/gemini-2.5-pro:generateContent": "gemini-2.5-pro",
    "/vertex_ai/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:streamGenerateContent": (
        "gemini-2.5-pro"
    ),
    "/bedrock/model/anthropic.claude-v2:1/invoke-with-response-stream": "anthropic.claude-v2:1",
    "/bedrock/model/arn:aws:bedrock:us-east-1:1:inference-profile/x/converse": (
        "arn:aws:bedrock:us-east-1:1:inference-profile/x"
    ),
    "/azure/openai/deployments/gpt-4/chat/completions": "gpt-4",
}

UNNAMED = ("/gemini/v1beta/models", "/openai/v1/models/gpt-4", "/anthropic/v1/messages", "/through", "")


@pytest.mark.parametrize(("path", "model"), NAMED.items())
def test_the_model_stands_in_the_path(path: str, model: str) -> None:
    """Gemini, Vertex AI, Bedrock and Azure name the model in the path."""
    assert model_in(path) == model


@pytest.mark.parametrize("path", UNNAMED)
def test_other_paths_name_no_model(path: str) -> None:
    """A path that only looks like it names none."""
    assert model_in(path) is None
