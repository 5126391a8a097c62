# One job for each experiment, method and seed.


rule train:
    input:
        split=rules.split.output,
        datasets=lambda w: datasets(EXPERIMENTS[w.experiment]),
    output:
        [
            f"{OUT}/runs/{{experiment}}/{{method}}/seed{{seed}}/{name}"
            for name in RUN_FILES
        ],
    log:
        f"{OUT}/logs/train/{{experiment}}-{{method}}-seed{{seed}}.log",
    benchmark:
        f"{OUT}/benchmarks/train/{{experiment}}-{{method}}-seed{{seed}}.tsv"
    threads: int(config["threads"])
    resources:
        mem_mb=lambda w: EXPERIMENTS[w.experiment].experiment.resources.memory_mb,
        gpu_memory_mb=lambda w: EXPERIMENTS[
            w.experiment
        ].experiment.resources.gpu_memory_mb,
        runtime=lambda w: EXPERIMENTS[w.experiment].experiment.resources.minutes,
    params:
        # Everything that the run's numbers depend on: a change here, and nothing else, trains it again. Comments in
        # the library or in configuration files do not; a method's `version` does.
        run=lambda w: json.dumps(
            EXPERIMENTS[w.experiment].experiment.run_config(w.method, int(w.seed))
        ),
        arguments=lambda w: [
            str(EXPERIMENTS[w.experiment].path),
            *overrides(EXPERIMENTS[w.experiment]),
        ],
    # The checkpoint is no output, which Snakemake would delete when a job fails: a killed run goes on from it.
    shell:
        "blip train {params.arguments:q} --method {wildcards.method} --seed {wildcards.seed}"
        f" {FOLDERS} {TRAINING} --threads {{threads}} > {{log:q}} 2>&1"
