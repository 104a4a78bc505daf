"""One request to Datadog: who may send, over what connection, in what form."""
