"""The promise under load: never more in flight than the limit, no needless refusal, nothing left over."""
