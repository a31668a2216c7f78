"""Apache Kafka: a broker of our own, topics, producing and consuming."""
