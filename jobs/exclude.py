"""Stage `exclude` on Spark: find samples that are near reference images or on a list.

spark-submit --master spark://HOST:7077 jobs/exclude.py [-c conf/cluster.yaml] output.run_dir=URL exclude.reference_shards=URL
"""

from dedup.cli.submit import submit

if __name__ == "__main__":
    submit(__doc__, "exclude")
