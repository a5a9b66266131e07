"""Stage `index` on Spark: collapse byte-identical images, train and fill the index.

spark-submit --master spark://HOST:7077 jobs/index.py [-c conf/cluster.yaml] output.run_dir=URL …
"""

from dedup.cli.submit import submit

if __name__ == "__main__":
    submit(__doc__, "index")
