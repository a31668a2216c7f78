"""Rooms that talk to one outside thing each (Kafka, Spark, files, host); no sibling is known."""
