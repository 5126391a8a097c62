# Raw measurements -> tables and figures; redrawn without training anything again.


rule tables:
    input:
        PLAN.results(),
    output:
        report(
            directory(PLAN.output("tables")),
            patterns=["{experiment}.csv"],
            caption="../report/table.rst",
            category="Tables",
            labels={"experiment": "{experiment}"},
        ),
    log:
        PLAN.log("tables"),
    benchmark:
        PLAN.benchmark("tables")
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=more_each_time(2000),
        runtime=more_each_time(10),
    params:
        runs=folders_of(PLAN.results()),
        folders=lambda w, input: folders_of(input),
    message:
        "Tables: {output}"
    shell:
        "blip tables {params.folders:q} --out {output:q} > {log:q} 2>&1"


rule figures:
    input:
        lambda w: PLAN.results(w.drawn),
    output:
        report(
            directory(PLAN.output("figures/{drawn}")),
            patterns=["{figure}.png"],
            caption="../report/figure.rst",
            category="Figures",
            subcategory="{drawn}",
            labels={"figure": "{figure}"},
        ),
    log:
        PLAN.log("figures/{drawn}"),
    benchmark:
        PLAN.benchmark("figures/{drawn}")
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=more_each_time(2000),
        runtime=more_each_time(10),
    params:
        runs=lambda w: folders_of(PLAN.results(w.drawn)),
        folders=lambda w, input: folders_of(input),
        out=lambda w, output: parent(output[0]),
    message:
        "Figures of {wildcards.drawn}: {output}"
    shell:
        "blip figures {params.folders:q} --only {wildcards.drawn:q} --out {params.out:q} > {log:q} 2>&1"


rule games:
    input:
        PLAN.results(playable=True),
    output:
        report(
            directory(PLAN.output("games")),
            patterns=["{experiment}/{method}/{learned}-{played}.gif"],
            caption="../report/games.rst",
            category="Games",
            subcategory="{experiment}",
            labels={
                "method": "{method}",
                "games learned": "{learned}",
                "plays game": "{played}",
            },
        ),
    log:
        PLAN.log("games"),
    benchmark:
        PLAN.benchmark("games")
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=more_each_time(2000),
        runtime=more_each_time(60),
    params:
        folders=lambda w, input: folders_of(input),
    message:
        "Pictures of games: {output}"
    shell:
        "blip games {params.folders:q} --out {output:q} > {log:q} 2>&1"


# One page of all of it, to be opened in a browser. It links what lies beside it: tables, figures, pictures of games.
rule page:
    input:
        runs=PLAN.results(),
        beside=[
            *rules.tables.output,
            *expand(rules.figures.output, drawn=PLAN.drawn),
            *(rules.games.output if PLAN.results(playable=True) else []),
        ],
    output:
        PLAN.output("index.html"),
    log:
        PLAN.log("page"),
    benchmark:
        PLAN.benchmark("page")
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=more_each_time(2000),
        runtime=more_each_time(10),
    params:
        folders=lambda w, input: folders_of(input.runs),
        title=PLAN.suite,
    message:
        "Page: {output}"
    shell:
        "blip page {params.folders:q} --out {output:q} --title {params.title:q} > {log:q} 2>&1"
