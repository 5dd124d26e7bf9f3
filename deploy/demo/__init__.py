"""A plant to watch: a real Kafka in one process, simulated pumps, and the demo that puts zmu between them."""
