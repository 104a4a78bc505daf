"""Events about calls, and the spans and metrics that are derived from them."""
