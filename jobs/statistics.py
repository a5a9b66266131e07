"""Stage `statistics` on Spark: duplication counts per image and caption.

spark-submit --master spark://HOST:7077 jobs/statistics.py [-c conf/cluster.yaml] output.run_dir=URL …
"""

from dedup.cli.submit import submit

if __name__ == "__main__":
    submit(__doc__, "statistics")
