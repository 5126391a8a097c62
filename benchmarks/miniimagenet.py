"""mini-ImageNet's preparation: images per second and peak memory of each stage, on generated 84×84 JPEG files.

Stages: MI_raw → pickles, pickles → data set, and data set + split → a sequence of 20 tasks in memory. Each runs in a
process of its own. Beside the first, in the same minute: a plain loop over the same files that decodes and drops.

    python benchmarks/miniimagenet.py [CLASSES]    # 100 as in the real data where left out
"""

import io
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import timing
from PIL import Image

IMAGES = 600
STAGES = {
    "decode alone, one thread": """
from PIL import Image
for path in sorted((raw / "MI_raw").glob("*/*")):
    with Image.open(path) as image:
        image.convert("RGB")
""",
    "MI_raw to pickles": """
from blip.data.raw import prepare_pickles
prepare_pickles(source, raw, prepared)
""",
    "pickles to data set": """
from blip.data import prepare_dataset
(raw / "MI_raw").rename(raw / "away")  # the pickles are enough
prepare_dataset(source, raw, prepared)
""",
    "split for one seed": """
from blip.data import DataConfig, prepare_experiment
prepare_experiment("mini", DataConfig(sources=[source], shuffle_classes=True, validation=0.02), 0, raw, prepared)
""",
    "split, load, and cut out every task": """
from blip.data import DataConfig, load_sequence, prepare_experiment
config = DataConfig(sources=[source], shuffle_classes=True, validation=0.02)
sequence = load_sequence(prepare_experiment("mini", config, 0, raw, prepared), prepared)
for t in range(len(sequence)):
    sequence.task(t), sequence.test(t)
""",
}
CHILD = """
import resource, sys, time
from pathlib import Path
from blip.data import SourceConfig
raw, prepared, classes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
source = SourceConfig(name="miniimagenet", classes_per_task=classes // 20, raw_classes=classes)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
start = time.perf_counter()
{stage}
seconds = time.perf_counter() - start
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, before)
"""


def write_images(raw: Path, classes: int) -> None:
    """Smooth random pictures, which compress about as photographs do; ten to a class, repeated."""
    random = np.random.default_rng(0)
    for label in range(classes):
        folder = raw / "MI_raw" / f"n{label:03}"
        folder.mkdir(parents=True)
        contents = []
        for _ in range(10):
            small = Image.fromarray(random.integers(0, 256, (21, 21, 3), dtype=np.uint8))
            file = io.BytesIO()
            small.resize((84, 84), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
            contents.append(file.getvalue())
        for i in range(IMAGES):
            (folder / f"{i:04}.jpg").write_bytes(contents[i % 10])


if __name__ == "__main__":
    timing.main()
    classes = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as folder:
        raw, prepared = Path(folder) / "raw", Path(folder) / "prepared"
        write_images(raw, classes)
        timing.row("mini-ImageNet: images", f"{classes} classes of {IMAGES}", True)
        for name, stage in STAGES.items():
            command = [sys.executable, "-c", CHILD.format(stage=stage), str(raw), str(prepared), str(classes)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            seconds, peak, before = map(float, output.split())
            measured = f"{classes * IMAGES / seconds:.0f} images/s ({seconds:.1f} s), peak memory {peak:.0f} MiB"
            timing.row(f"mini-ImageNet: {name}", f"{measured}, of which {before:.0f} before it began", True)
        sizes = {path.name: path.stat().st_size / 2**20 for path in prepared.rglob("*") if path.is_file()}
        timing.row("mini-ImageNet: files", ", ".join(f"{name} {size:.0f} MiB" for name, size in sizes.items()), True)
