"""A page in the browser for all of it: files are dropped, looked at, worked on by the commands, and shown.

The server keeps everything in one folder, a folder for each job, and runs the commands of the package as
processes of their own: a file that harms one harms no other, a job can be stopped, and what is finished
outlives the server.
"""
