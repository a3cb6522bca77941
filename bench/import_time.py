"""How much longer is `import minigpt` (with the model) than `import torch`?  Whole processes, in turn, medians."""

import statistics
import subprocess
import sys
import time

STATEMENTS = ("import torch", "import minigpt", "import torch; from minigpt import GPT")


def main(rounds: int = 7):
    seconds = {statement: [] for statement in STATEMENTS}
    for _ in range(rounds):
        for statement in STATEMENTS:
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            seconds[statement].append(time.perf_counter() - began)
    print("| statement | seconds, median | against import torch |\n|---|---|---|")
    for statement in STATEMENTS:
        ratios = [a / b for a, b in zip(seconds[statement], seconds["import torch"], strict=True)]
        print(f"| {statement} | {statistics.median(seconds[statement]):.2f} | {statistics.median(ratios):.2f} |")


if __name__ == "__main__":
    main()
