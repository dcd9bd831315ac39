"""Replay exporter: dcgm-exporter's and vLLM's metrics for pods that no GPU runs, from measured runs.

For each serving pod it takes the measured run nearest to the pod's plan and lets counters advance in real time: power
drives the energy counters, throughput the token counters, ITL percentiles the histogram. Nothing comes from the
predictor of EnergyLens, and what nobody measured is left out, so that the error that an operator finds is a real one.

`runs` picks the operating point, `plans` reads what a pod runs, `fleet` keeps the counters, `exposition` writes them in
either generation of names, `faults` breaks them on purpose, `cluster` lists pods, `server` serves.
"""
