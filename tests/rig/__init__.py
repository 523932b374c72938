"""The world around the plugin: a real proxy, a real Redis, a provider that counts, and callers."""
