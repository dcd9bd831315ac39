"""Measuring: from energy and token counters to joules per output token over a window.

How the parts meet: a source (`source.EnergySource`) reads GPU observations, `engines.EngineScraper` reads the engines'
metrics, `history.History` keeps both for a while, and `window.measure_window` turns a history into one measurement.
`collector.Collector` is the only thing that a controller needs::

    async with HttpScraper(clock) as http:
        collector = Collector(
            sources=[DcgmExporterSource(http, lambda: ["http://10.0.0.7:9400/metrics"])],
            engines=EngineScraper(http),
            clock=clock,
        )
        report = await collector.collect([EngineTarget(PodRef("team", "llama-0"), "http://10.1.0.9:8000/metrics")])
        # every 15 s or so; never raises for a target's fault: report.failures lists them

        owned = OwnedPods("team", ("llama-0",), gpus=4, power_limit_watts=700)
        measurement = collector.measurement(owned, 600, ready_since=..., warmup_seconds=120, percentile="P95")

`measurement` is pure and quick (no I/O); its reason is ``Measured`` only when energy and tokens are complete.
"""
