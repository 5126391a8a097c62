# One job for each experiment, method and seed; where runs are short, one for each experiment and method.
#
# A rule for each experiment, so that a profile can give one of them other resources (`set-resources: train_cifar: …`).


for name, planned in EXPERIMENTS.items():
    if planned.experiment.resources.short:
        # Its outputs are those of all seeds, which Snakemake deletes before it runs the job anew. `--keep` brings back
        # the runs that are not touched by what changed.
        seeds, log_name = planned.seeds, f"{name}-{{method}}"
    else:
        seeds, log_name = ["{seed}"], f"{name}-{{method}}-seed{{seed}}"

    rule:
        name:
            f"train_{name}"
        input:
            split=splits(planned, seeds),
            datasets=datasets(planned),
        output:
            [
                f"{OUT}/runs/{name}/{{method}}/seed{seed}/{file}"
                for seed in seeds
                for file in FILES[name]
            ],
        log:
            f"{OUT}/logs/train/{log_name}.log",
        benchmark:
            f"{OUT}/benchmarks/train/{log_name}.tsv"
        conda:
            "../../envs/environment.yaml"
        threads: int(config["threads"])
        resources:
            gpu=0 if config["device"] == "cpu" else 1,
            gpu_memory_mb=planned.experiment.resources.gpu_memory_mb,
            mem_mb=more_each_time(planned.experiment.resources.memory_mb),
            runtime=more_each_time(
                START_MINUTES + planned.experiment.resources.minutes * len(seeds)
            ),
        params:
            # Everything that the numbers depend on: a change here, and nothing else, trains again. Comments in the
            # library or in configuration files do not; a method's `version` does.
            run=run_configs(planned.experiment, seeds),
            arguments=[str(planned.path), *overrides(planned)],
            # Not looked at when Snakemake decides what to run again, since they have to do with input or output.
            seeds=seed_arguments(planned),
            data=data_folder(planned),
            runs=lambda w, output: above(output[0], 4),
        # The checkpoint is no output, which Snakemake would delete when a job fails: a killed run goes on from it.
        # No variable of the loop in here: the text is put together when the job starts, after the loop's last turn.
        shell:
            f"{ON_GPU}blip train {{params.arguments:q}} --method {{wildcards.method}} --seed {{params.seeds}} {RAW_FOLDER}"
            f" {{params.data:q}} --out {{params.runs:q}} {TRAINING} --threads {{threads}} > {{log:q}} 2>&1"
