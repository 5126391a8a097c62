# Raw data -> data sets (every image once, uint8) -> splits (which images make which task, one for each seed).


# Raw images may be gone once the pickles are made.
if PLAN.raw_images() or not PLAN.has_pickles():

    rule miniimagenet:
        input:
            PLAN.raw_images(),
        output:
            # Kept while the job runs: where it fails, as for another raw folder, they are not lost.
            update(PLAN.pickle_files()),
        log:
            PLAN.log("miniimagenet"),
        benchmark:
            PLAN.benchmark("miniimagenet")
        conda:
            "../../envs/environment.yaml"
        resources:
            mem_mb=more_each_time(2000),
            runtime=more_each_time(60),
        params:
            counts=lambda w: PLAN.raw_counts(),
            folder=lambda w, output: parent(output[0]),
        message:
            "mini-ImageNet's pickles: progress in {log}"
        shell:
            f"blip miniimagenet {RAW_FOLDER} --out {{params.folder:q}} {{params.counts:q}} > {{log:q}} 2>&1"
            " && touch {output:q}"


rule dataset:
    input:
        lambda w: PLAN.pickles(w.dataset),
    output:
        PLAN.dataset_file("{dataset}"),
    log:
        PLAN.log("dataset/{dataset}"),
    benchmark:
        PLAN.benchmark("dataset/{dataset}")
    wildcard_constraints:
        dataset="|".join(PLAN.datasets),
    conda:
        "../../envs/environment.yaml"
    resources:
        # Pickles are read whole, and may be of large images.
        mem_mb=lambda w, input, attempt: (6000 + input.size_mb) * attempt,
        runtime=more_each_time(60),
    params:
        source=lambda w: PLAN.datasets[w.dataset][1].of_file(),
        name=lambda w: w.dataset,
        # Of `output`, so that Snakemake does not look at it: other settings of the experiment leave the data alone.
        arguments=lambda w, output: experiment_arguments(PLAN.datasets[w.dataset][0]),
        data=lambda w, output: parent(output[0]),
    message:
        "Data set {wildcards.dataset}: progress in {log}"
    shell:
        f"blip data {{params.arguments:q}} --source {{params.name:q}} {RAW_FOLDER} --data {{params.data:q}} > {{log:q}} 2>&1"


rule split:
    input:
        lambda w: PLAN.dataset_files(PLAN.splits[w.split]),
    output:
        PLAN.split_file("{split}", "{seed}"),
    log:
        PLAN.log("split/{split}-seed{seed}"),
    benchmark:
        PLAN.benchmark("split/{split}-seed{seed}")
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=more_each_time(4000),
        runtime=more_each_time(10),
    params:
        tasks=lambda w: PLAN.splits[w.split].experiment.data.model_dump_json(),
        arguments=lambda w, output: experiment_arguments(PLAN.splits[w.split]),
        data=lambda w, output: parent(output[0], 3),
    message:
        "Split {wildcards.split}, seed {wildcards.seed}"
    shell:
        f"blip data {{params.arguments:q}} --seed {{wildcards.seed}} {RAW_FOLDER} --data {{params.data:q}} > {{log:q}} 2>&1"
