"""The batch pipeline, measured: producer, consumers, Spark jobs and the demo, as users run them."""
