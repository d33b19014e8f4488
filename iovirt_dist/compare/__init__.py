"""One job at the three interfaces: what is run, and what its counters and trace points say.

Pure parts of ``iovirt compare``: the job and its truth (`job`), the rows of the comparison and their topologies
(`rows`), counters (`counts`), what the hypervisor knew of a request (`knowledge`), results and their ratios (`result`).
Processes are started and watched by `iovirt_dist.cli.compare`.
"""
