"""Real Kafka, ElasticMQ, moto and Postgres on this machine, by ``pip`` alone: for tests, the demo and benchmarks.

No Java, Docker or root is needed: wheels carry a JRE and Postgres, Maven coordinates become a class path (:mod:`dev_servers.jars`).
Each server is an object that is started, stopped, killed and started again on the same port; none outlives the process that
started it, however that ends (:mod:`dev_servers.supervisor`).
"""
