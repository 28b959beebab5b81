"""A page in the browser: drop a group of photos, see what they share. Needs gradio.

`group` is what is done with a visitor's photos, `page` what the browser shows of it.

What is kept, and how long. An upload is deleted once it was read, which is as soon as it has
arrived. Shrunk photos and maps are in the memory of the server, of each visitor their own, until
the visitor starts over or an hour passes. Pictures that were shown and zips that were packed are
files in a temporary folder for as long, and the folder goes when the server stops.
"""
