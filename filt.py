import os,sys,time,struct,ctypes,resource
sys.path.insert(0,"/work/scratch/wt/sandbox2/linn/sandbox")
from inside import kernel
code=kernel.program_filter(image=900)
print(len(code)//8)
def child(f):
    r,w=os.pipe(); p=os.fork()
    if p==0:
        kernel.gain_no_privileges()
        a=time.process_time_ns(); fa=resource.getrusage(0).ru_minflt; f(); b=time.process_time_ns(); fb=resource.getrusage(0).ru_minflt
        os.write(w,struct.pack("qq",b-a,fb-fa)); os._exit(0)
    os.waitpid(p,0); x=os.read(r,16); os.close(r); os.close(w); return struct.unpack("qq",x)
def med(f,n=41):
    v=sorted(child(f) for _ in range(n)); return v[n//2]
print("install_filter as is", med(lambda: kernel.install_filter(code)))
def pre(code):
    ins=ctypes.create_string_buffer(code,len(code)); prog=struct.pack("HxxxxxxP",len(code)//8,ctypes.addressof(ins)); ptr=ctypes.create_string_buffer(prog); return ins,ptr
k=pre(code)
def inst(k=k): kernel.libc.prctl(22,ctypes.c_ulong(2),k[1],0,0)
print("buffers ready", med(inst))
