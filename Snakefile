# `snakemake --cores N` from a clone. The workflow itself is workflow/Snakefile, where Snakemake's own conventions
# expect it; an included default rule is not the default, so this file has one.
include: "workflow/Snakefile"


rule default:
    default_target: True
    input:
        rules.all.input,
