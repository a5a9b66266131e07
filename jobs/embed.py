"""Stage `embed` on Spark, for a cluster with GPUs; `jobs/run.py --from index` does the rest, on the same cluster or another.

spark-submit --master spark://HOST:7077 jobs/embed.py [-c conf/cluster.yaml] input.shards=URL output.run_dir=URL
"""

from dedup.cli.submit import submit

if __name__ == "__main__":
    submit(__doc__, only="embed")
