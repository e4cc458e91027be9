"""The histograms behind /metrics, and the text that Prometheus reads."""

from lowtide.engine_sim.real_time.histograms import Histogram


def test_a_histogram_counts_up_to_each_edge_inclusive() -> None:
    histogram = Histogram((0.1, 1.0))
    histogram.observe(0.1)
    histogram.observe(0.5, times=3)
    histogram.observe(7.0)
    assert histogram.lines("x", 'engine="0"') == [
        "# TYPE x histogram",
        'x_bucket{engine="0",le="0.1"} 1',
        'x_bucket{engine="0",le="1.0"} 4',
        'x_bucket{engine="0",le="+Inf"} 5',
        'x_count{engine="0"} 5',
        'x_sum{engine="0"} 8.6',
    ]
    assert histogram.count == 5
