"""Prints a Perfetto trace as a tree, and fails where slices do not nest.

Usage: read_perfetto.py TRACE
"""

import sys
from collections import defaultdict

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

MONOTONIC = 3


def args_of(event):
    def value(annotation):
        return getattr(annotation, annotation.WhichOneof("value"))

    return {a.name: value(a) for a in event.debug_annotations}


def main():
    trace = Trace()
    with open(sys.argv[1], "rb") as file:
        trace.ParseFromString(file.read())

    tracks, events, clocks = {}, [], None
    for packet in trace.packet:
        assert packet.trusted_packet_sequence_id == 1
        if packet.HasField("clock_snapshot"):
            clocks = packet.clock_snapshot
            assert packet.sequence_flags & 1
            assert packet.trace_packet_defaults.timestamp_clock_id == MONOTONIC
        elif packet.HasField("track_descriptor"):
            assert packet.track_descriptor.uuid not in tracks
            tracks[packet.track_descriptor.uuid] = packet.track_descriptor
        elif packet.HasField("track_event"):
            assert packet.track_event.track_uuid in tracks, "a track is described before it is used"
            events.append((packet.timestamp, packet.track_event))
    start = {clock.clock_id: clock.timestamp for clock in clocks.clocks}[MONOTONIC]

    # As the trace processor does it: by time, and as they stand in the file where that is the same.
    events.sort(key=lambda event: event[0])
    lines, open_slices, depths = defaultdict(list), defaultdict(list), defaultdict(int)
    for at, event in events:
        uuid = event.track_uuid
        stack = open_slices[uuid]
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            line = [at, None, len(stack), event.name, args_of(event)]
            stack.append(line)
            lines[uuid].append(line)
            depths[uuid] = max(depths[uuid], len(stack))
        elif event.type == TrackEvent.TYPE_SLICE_END:
            line = stack.pop()
            line[1] = at
            line[4].update(args_of(event))
        else:
            text = event.name or f"= {event.counter_value}"
            lines[uuid].append([at, at, len(stack), text, args_of(event)])

    for stack in open_slices.values():
        assert len(stack) in (0, 2), "what is open at the end is a connection and its state"
    for uuid, depth in depths.items():
        assert depth == 2, "connections lie one behind the other, with states in them"
    for track in tracks.values():
        if not track.parent_uuid:
            show(track, lines, start, "")
            for lane in tracks.values():
                if lane.parent_uuid == track.uuid:
                    show(lane, lines, start, "  ")
        assert not track.parent_uuid or track.parent_uuid in tracks


def show(track, lines, start, indent):
    name = track.name
    if track.HasField("process"):
        name = f"process {track.process.pid} {track.process.process_name}"
    print(f"{indent}{name}")
    for at, until, depth, what, args in lines[track.uuid]:
        end = "open" if until is None else f"{until - at} ns"
        pairs = " ".join(f"{key}={value}" for key, value in args.items())
        print(f"{indent}  {'  ' * depth}+{at - start} {end}: {what}  {pairs}")


main()
