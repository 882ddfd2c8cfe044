"""Prints per tag what the interval histograms of an HdrHistogram log hold, as JSON.

Usage: read_hlog.py LOG
"""

import json
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader


def main():
    reader = HistogramLogReader(sys.argv[1], HdrHistogram(1, 2**62, 3))
    tags = {}
    while (histogram := reader.get_next_interval_histogram()) is not None:
        tag = tags.setdefault(histogram.tag, {"count": 0, "min": None, "max": 0, "starts": []})
        tag["count"] += histogram.get_total_count()
        least = histogram.get_min_value()
        tag["min"] = least if tag["min"] is None else min(tag["min"], least)
        tag["max"] = max(tag["max"], histogram.get_max_value())
        tag["starts"].append(histogram.get_start_time_stamp())
    print(json.dumps(tags))


main()
