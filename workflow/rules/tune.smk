# Settings chosen by validation images of the first tasks, where the suite says `tune`: `snakemake tuned`. What is chosen
# is taken over into the suite by hand, so that its runs are known before any is trained.


rule tuned:
    input:
        [PLAN.tuned(job) for job in PLAN.tuning],


for job in PLAN.tuning:

    rule:
        name:
            job.name
        input:
            PLAN.dataset_files(job.planned),
        output:
            PLAN.tuned(job),
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
            run=job.run_config(),
            arguments=job.arguments(),
            data=lambda w, input: parent(input[0]),
            out=lambda w, output: parent(output[0], 2),
        message:
            "{rule} ({resources.runtime} min, {resources.mem_mb} MB, {resources.gpu} GPU): progress in {log}"
        # Trials are no outputs, so that a killed job goes on.
        shell:
            f"{ON_GPU}blip tune {{params.arguments:q}} {RAW_FOLDER} --data {{params.data:q}}"
            f" --out {{params.out:q}} {TRAINING} --threads {{threads}} > {{log:q}} 2>&1"
