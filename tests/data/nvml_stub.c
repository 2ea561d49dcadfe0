/* A tiny stand-in for libnvidia-ml.so.1: answers from a text file named by FAKE_NVML_STATE
 * (re-read on every call, so a test can change it while the app runs), else from defaults.
 * One line per GPU: name;total_mib;used_mib;gpu_util;mem_util;temp_c;power_mw;limit_mw;pid:mib,pid:mib
 * A last field of LOST is a card that fell off the bus, NOTSUP one that tells only name and memory,
 * and pid:-1 a process whose memory the driver does not tell.   */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define OK 0
#define UNINIT 1
#define INVALID 2
#define NOTSUP 3
#define NOTFOUND 6
#define SMALL 7
#define MAXG 16
#define MAXP 32
typedef unsigned int u32; typedef unsigned long long u64;
typedef struct { char name[96]; u64 total, used; u32 gu, mu, temp, power, limit; int np; u32 pid[MAXP]; u64 pmem[MAXP]; int lost, notsup; } gpu_t;
static gpu_t G[MAXG]; static int N, inited;
static void load(void) {
  const char *p = getenv("FAKE_NVML_STATE"); FILE *f = p ? fopen(p, "r") : NULL; char line[2048]; N = 0;
  if (!f) { gpu_t *g=&G[0]; memset(g,0,sizeof *g); strcpy(g->name,"Fake H200"); g->total=143771ULL<<20; g->used=1024ULL<<20; g->gu=37; g->mu=12; g->temp=41; g->power=123000; g->limit=700000; N=1; return; }
  while (N < MAXG && fgets(line, sizeof line, f)) {
    if (line[0]=='#'||line[0]=='\n') continue;
    gpu_t *g=&G[N]; memset(g,0,sizeof *g); char procs[1024]=""; u64 t=0,u=0;
    if (sscanf(line,"%95[^;];%llu;%llu;%u;%u;%u;%u;%u;%1023[^\n]",g->name,&t,&u,&g->gu,&g->mu,&g->temp,&g->power,&g->limit,procs) < 8) continue;
    g->total=t<<20; g->used=u<<20;
    for (char *s=strtok(procs,","); s && g->np<MAXP; s=strtok(NULL,",")) { u32 pid; u64 m; if (!strcmp(s,"LOST")) g->lost=1; else if (!strcmp(s,"NOTSUP")) g->notsup=1; else if (sscanf(s,"%u:%llu",&pid,&m)==2){g->pid[g->np]=pid;g->pmem[g->np++]=m==~0ULL?m:m<<20;} }
    N++; }
  fclose(f);
}
#define DEV(h) if(!inited) return UNINIT; load(); long i_=(long)(h)-1; if(i_<0||i_>=N) return INVALID; gpu_t *g=&G[i_]; if (g->lost) return 15;
int nvmlInitWithFlags(u32 f){ (void)f; inited++; load(); return OK; }
int nvmlInit_v2(void){ return nvmlInitWithFlags(0); }
int nvmlInit(void){ return nvmlInitWithFlags(0); }
int nvmlShutdown(void){ if(!inited) return UNINIT; inited--; return OK; }
const char *nvmlErrorString(int r){ switch(r){case 0:return "Success";case 1:return "Uninitialized";case 2:return "Invalid Argument";case 3:return "Not Supported";case 15:return "GPU is lost";} return "Unknown Error"; }
static int put(char *b,u32 n,const char *s){ if(strlen(s)+1>n) return SMALL; strcpy(b,s); return OK; }
int nvmlSystemGetDriverVersion(char *b,u32 n){ return inited?put(b,n,"580.159.04"):UNINIT; }
int nvmlSystemGetNVMLVersion(char *b,u32 n){ return inited?put(b,n,"13.580.159.04"):UNINIT; }
int nvmlSystemGetCudaDriverVersion(int *v){ *v=13000; return OK; }
int nvmlSystemGetCudaDriverVersion_v2(int *v){ *v=13000; return OK; }
int nvmlDeviceGetCount_v2(u32 *c){ if(!inited) return UNINIT; load(); *c=N; return OK; }
int nvmlDeviceGetCount(u32 *c){ return nvmlDeviceGetCount_v2(c); }
int nvmlDeviceGetHandleByIndex_v2(u32 i, void **h){ if(!inited) return UNINIT; load(); if((int)i>=N) return INVALID; *h=(void*)(long)(i+1); return OK; }
int nvmlDeviceGetIndex(void *h,u32 *i){ DEV(h) *i=i_; return OK; }
int nvmlDeviceGetName(void *h,char *b,u32 n){ DEV(h) return put(b,n,g->name); }
int nvmlDeviceGetUUID(void *h,char *b,u32 n){ DEV(h) char s[64]; snprintf(s,sizeof s,"GPU-fa4e0000-0000-0000-0000-%012ld",i_); return put(b,n,s); }
typedef struct {u64 total,free,used;} mem1; typedef struct {u32 version; u64 total,reserved,free,used;} mem2;
int nvmlDeviceGetMemoryInfo(void *h,mem1 *m){ DEV(h) m->total=g->total;m->used=g->used;m->free=g->total-g->used; return OK; }
int nvmlDeviceGetMemoryInfo_v2(void *h,mem2 *m){ DEV(h) m->total=g->total;m->used=g->used;m->reserved=512ULL<<20;m->free=g->total-g->used-m->reserved; return OK; }
int nvmlDeviceGetUtilizationRates(void *h,u32 *u){ DEV(h) if (g->notsup) return NOTSUP; u[0]=g->gu;u[1]=g->mu; return OK; }
int nvmlDeviceGetTemperature(void *h,u32 s,u32 *t){ (void)s; DEV(h) if (g->notsup) return NOTSUP; *t=g->temp; return OK; }
int nvmlDeviceGetTemperatureV(void *h,u32 *v){ DEV(h) if (g->notsup) return NOTSUP; v[2]=g->temp; return OK; }
int nvmlDeviceGetPowerUsage(void *h,u32 *p){ DEV(h) if (g->notsup) return NOTSUP; *p=g->power; return OK; }
int nvmlDeviceGetEnforcedPowerLimit(void *h,u32 *p){ DEV(h) if (g->notsup) return NOTSUP; *p=g->limit; return OK; }
int nvmlDeviceGetPowerManagementLimit(void *h,u32 *p){ DEV(h) *p=g->limit; return OK; }
int nvmlDeviceGetClockInfo(void *h,u32 t,u32 *c){ DEV(h) *c= t==2?3201:1980; return OK; }
int nvmlDeviceGetMaxClockInfo(void *h,u32 t,u32 *c){ DEV(h) *c= t==2?3201:1980; return OK; }
int nvmlDeviceGetFanSpeed(void *h,u32 *s){ (void)s; DEV(h) return NOTSUP; }
int nvmlDeviceGetMigMode(void *h,u32 *a,u32 *b){ DEV(h) *a=*b=0; return OK; }
int nvmlDeviceGetCudaComputeCapability(void *h,int *a,int *b){ DEV(h) *a=9;*b=0; return OK; }
typedef struct {u32 pid; u64 mem; u32 gi,ci;} proc;
int nvmlDeviceGetComputeRunningProcesses_v3(void *h,u32 *n,proc *p){ DEV(h) if (g->notsup) return NOTSUP; u32 cap=*n; *n=g->np; if(!g->np) return OK; if(!p||cap<(u32)g->np) return SMALL; for(int k=0;k<g->np;k++){p[k].pid=g->pid[k];p[k].mem=g->pmem[k];p[k].gi=p[k].ci=~0u;} return OK; }
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *h,u32 *n,proc *p){ (void)p; DEV(h) *n=0; return OK; }
