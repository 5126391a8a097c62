# Raw data -> data sets (every image once, uint8) -> splits (which images make which task, one for each seed).


# Each data set file, an experiment that uses it, and the source's name in there.
DATASETS = {
    Path(path).stem: (planned, source)
    for planned in EXPERIMENTS.values()
    for path, source in zip(datasets(planned), planned.experiment.sources)
}


rule miniimagenet:
    input:
        [path for path in (RAW / "MI_raw", RAW / "MI_raw.zip") if path.exists()][:1],
    output:
        [
            f"{DATA}/miniimagenet/{name}"
            for name in ("train.pkl", "test.pkl", "manifest.csv", "SHA256SUMS")
        ],
    log:
        f"{OUT}/logs/miniimagenet.log",
    benchmark:
        f"{OUT}/benchmarks/miniimagenet.tsv"
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        counts=lambda w: raw_counts(DATASETS["miniimagenet"][1]),
        folder=lambda w, output: above(output[0], 1),
    shell:
        f"blip miniimagenet {RAW_FOLDER} --out {{params.folder:q}} {{params.counts:q}} > {{log:q}} 2>&1"


rule dataset:
    input:
        lambda w: (
            rules.miniimagenet.output
            if needs_pickles(DATASETS[w.dataset][1], RAW)
            else []
        ),
    output:
        f"{DATA}/{{dataset}}.safetensors",
    log:
        f"{OUT}/logs/dataset/{{dataset}}.log",
    benchmark:
        f"{OUT}/benchmarks/dataset/{{dataset}}.tsv"
    wildcard_constraints:
        dataset="|".join(DATASETS),
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=6000,
        runtime=60,
    params:
        source=lambda w: DATASETS[w.dataset][1].model_dump_json(
            include={"name", "folder", "side", "raw_classes", "raw_images_per_class"}
        ),
        name=lambda w: DATASETS[w.dataset][1].name,
        arguments=lambda w: [
            str(DATASETS[w.dataset][0].path),
            *overrides(DATASETS[w.dataset][0]),
        ],
        data=lambda w, output: above(output[0], 1),
    shell:
        f"blip data {{params.arguments:q}} --source {{params.name:q}} {RAW_FOLDER} --data {{params.data:q}} > {{log:q}} 2>&1"


rule split:
    input:
        lambda w: datasets(EXPERIMENTS[w.experiment]),
    output:
        f"{DATA}/splits/{{experiment}}/seed{{seed}}.safetensors",
    log:
        f"{OUT}/logs/split/{{experiment}}-seed{{seed}}.log",
    benchmark:
        f"{OUT}/benchmarks/split/{{experiment}}-seed{{seed}}.tsv"
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=4000,
        runtime=10,
    params:
        tasks=lambda w: EXPERIMENTS[w.experiment].experiment.data.model_dump_json(),
        arguments=lambda w: [
            str(EXPERIMENTS[w.experiment].path),
            *overrides(EXPERIMENTS[w.experiment]),
        ],
        data=lambda w, output: above(output[0], 3),
    shell:
        f"blip data {{params.arguments:q}} --seed {{wildcards.seed}} {RAW_FOLDER} --data {{params.data:q}} > {{log:q}} 2>&1"
