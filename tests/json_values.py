"""What may stand in a record, in a body, or in a configuration: anything that JSON can say."""

from __future__ import annotations

from hypothesis import strategies as st

texts = st.text() | st.sampled_from(
    ["", "5", "-1", "gpt-4", "gpt-*", "*", "[", "\ud800", "sk-x", "a,b", "null"]
)
"""Texts, those among them that something may trip over."""

json_values: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
