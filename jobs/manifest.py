"""Stage `manifest` on Spark: choose keepers, write manifest and duplicates.

spark-submit --master spark://HOST:7077 jobs/manifest.py [-c conf/cluster.yaml] output.run_dir=URL …
"""

from dedup.cli.submit import submit

if __name__ == "__main__":
    submit(__doc__, "manifest")
