"""DuckDB over the workspace's files: what pages read. Functions return Arrow, numpy or rows.

Files are the truth; everything here lives in memory and can be built again at any time.
"""
