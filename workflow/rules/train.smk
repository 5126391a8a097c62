# One job for each experiment, method and seed; where runs are short, one for each experiment and seed.
#
# A rule for each experiment and method, so that a profile can give one of them other resources
# (`set-resources: train_cifar_blip: …`).


for job in PLAN.training:

    rule:
        name:
            job.name
        input:
            split=PLAN.split_files(job.planned),
            datasets=PLAN.dataset_files(job.planned),
        output:
            # Not deleted before the job runs, which leaves finished runs of the same configuration alone.
            runs=[update(path) for path in PLAN.outputs(job)],
            # Gone when the job fails. The files above are then what they were before, with a new date, and would pass
            # for those of the configuration that failed.
            done=touch(PLAN.done(job)),
        log:
            PLAN.log(job.log),
        benchmark:
            PLAN.benchmark(job.log)
        conda:
            "../../envs/environment.yaml"
        threads: int(config["threads"])
        resources:
            gpu=0 if config["device"] == "cpu" else 1,
            mem_mb=more_each_time(job.planned.experiment.resources.memory_mb),
            runtime=more_each_time(job.minutes()),
        params:
            # Everything that the numbers depend on: a change here, and nothing else, trains again. Comments in the
            # library or in configuration files do not; a method's `version` does.
            run=lambda w, job=job: job.run_configs(int(w.seed)),
            # Of functions, since braces in a text would be taken for wildcards; of functions of input or output, since
            # Snakemake does not look at those when it decides what to run again.
            arguments=lambda w, output, job=job: [
                *experiment_arguments(job.planned),
                "--method",
                *job.methods,
            ],
            data=lambda w, input: (
                ["--data", parent(input.datasets[0])] if input.datasets else []
            ),
            weights=lambda w, output, job=job: (
                [] if job.planned.weights else ["--no-weights"]
            ),
            runs=lambda w, output: parent(output[0], 4),
        message:
            "{rule}, seed {wildcards.seed} ({resources.runtime} min, {resources.mem_mb} MB, {resources.gpu} GPU): progress in {log}"
        # The checkpoint is no output, which Snakemake would delete when a job fails: a killed run goes on from it.
        # No variable of the loop in here: the text is put together when the job starts, after the loop's last turn.
        shell:
            f"{ON_GPU}blip train {{params.arguments:q}} --seed {{wildcards.seed}} {RAW_FOLDER}"
            f" {{params.data:q}} {{params.weights}} --out {{params.runs:q}} {TRAINING} --threads {{threads}} > {{log:q}} 2>&1"
