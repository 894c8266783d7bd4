"""Speed, CPU, memory and behaviour under limits and failures, as ratios within one run: `python -m benchmarks`."""
