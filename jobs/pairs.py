"""Stage `pairs` on Spark: find all pairs that are similar.

spark-submit --master spark://HOST:7077 jobs/pairs.py [-c conf/cluster.yaml] output.run_dir=URL …
"""

from dedup.cli.submit import submit

if __name__ == "__main__":
    submit(__doc__, "pairs")
