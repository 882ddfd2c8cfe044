"""Runs without end through functions of one line each.

The function f<family>_<depth> is on line 1000 (family + 1) + 10 depth, calls the next one of its family there, and
is called by nothing else. run() calls each family on a line of its own, 100 + family.
"""
import os, sys, threading, time

NAP, DEPTH = float(sys.argv[1]), int(sys.argv[2])
FAMILIES = 5

lines = {98: "def run():", 99: " while True:"}
for family in range(FAMILIES):
    lines[100 + family] = f"  f{family}_0()"
    for depth in range(DEPTH):
        if depth + 1 < DEPTH:
            body = f"x = 1; f{family}_{depth + 1}(); y = 2"
        else:
            body = "[i * i for i in (1, 2)]; time.sleep(NAP)" if NAP else "z = 3"
        lines[1000 * (family + 1) + 10 * depth] = f"def f{family}_{depth}(): {body}"
text = "\n".join(lines.get(number, "") for number in range(1, max(lines) + 1))
spaces = {"time": time, "NAP": NAP}
exec(compile(text, "churn", "exec"), spaces)

print('{"pid": %d, "tid": %d, "frames": []}' % (os.getpid(), threading.get_native_id()), flush=True)
spaces["run"]()
