"""De-duplicate on Spark: shards in; cleaned manifest, duplication counts and attack targets out.

spark-submit --master spark://HOST:7077 jobs/run.py [-c conf/cluster.yaml] input.shards=URL output.run_dir=URL

All stages, or some: --only STAGE[,STAGE], --from STAGE, --until STAGE, as in `dedup run`.
"""

from dedup.cli.submit import submit

if __name__ == "__main__":
    submit(__doc__)
